"""What every room needs and no room owns: errors, the home folder, atomic files, progress."""
