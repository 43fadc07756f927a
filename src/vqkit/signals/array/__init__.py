"""Arrays of numbers: series along time, and volumes."""
