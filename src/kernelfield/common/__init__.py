"""Small things that every room uses: settings that check themselves, progress bars, files that appear whole."""
