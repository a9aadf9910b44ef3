"""Text alignment of generated clips: judges that answer questions about clips, and the command that runs them."""
