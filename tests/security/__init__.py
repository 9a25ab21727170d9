"""The security checklist of the API, the data and the tasks: one file for each subject."""
