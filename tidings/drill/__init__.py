"""`make drill`: break a running stack in every way that must raise an alert, and see who is told, and how soon."""
