"""What the scope sees, drawn: SVG that a page holds or a file."""
