"""Figures by idea; the reach is in the face of the room, the others are imported from here."""
