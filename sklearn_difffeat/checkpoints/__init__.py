"""Where weights come from: embedded, a folder or the hub; how they are checked."""
