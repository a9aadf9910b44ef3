"""Contact sheets, galleries of moving clips, and figures."""
