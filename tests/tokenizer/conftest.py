from hypothesis import settings

settings.register_profile("unhurried", deadline=None)  # the machine may be busy; time is not what we test
settings.load_profile("unhurried")
