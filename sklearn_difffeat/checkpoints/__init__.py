"""Where weights come from: embedded, a folder or the hub; read, checked, trusted."""
