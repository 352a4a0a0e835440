"""What plug-ins must do, as functions that their own tests call."""
