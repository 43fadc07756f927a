"""One folder a modality, with the same files: settings, files, source, networks, measures, display.

Nothing outside of this package, the report and the settings knows what kind of signal is trained
on.
"""
