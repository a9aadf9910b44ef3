"""Whether clips show what their captions say: judges that answer questions about clips, and the command to use them."""
