"""Images larger than memory: pictures in a chunked store on disk, behind the same loop as pictures in memory."""
