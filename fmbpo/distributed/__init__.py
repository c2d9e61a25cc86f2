"""One run in several processes, which torchrun starts: joining, talking, sharing the work.

Rank 0 leads: it runs the experiment, writes all files and answers signals. The others follow: they
carry out its orders (``fmbpo.running.following``) and keep nothing. Whatever the number of its
processes, a run looks the same on the disk, and it continues with another number.
"""
