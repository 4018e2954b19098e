"""What all tests share."""

from hypothesis import settings

settings.register_profile("patient", deadline=None)  # other work on the machine is no failure
settings.load_profile("patient")
