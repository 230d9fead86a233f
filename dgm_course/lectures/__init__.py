"""What presents and runs the lectures: reading, running, recording, slides, JupyterLab's settings.

Nothing here knows a model; the notebooks do.
"""
