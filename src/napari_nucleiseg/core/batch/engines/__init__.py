"""Where the tasks of a run are done: processes of this machine, or a dask cluster. One engine a file."""
