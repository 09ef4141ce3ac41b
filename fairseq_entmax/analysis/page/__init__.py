"""Pages in HTML: templates, and what fills them."""
