"""Recognizers: classes that name the action in a video, zero-shot, supervised, by probe or from a label index."""
