"""What PyTorch allocates while something runs."""

import torch


def peak(work):
    """Return the most bytes of tensors that ``work``, on one thread, held at once beyond those held before."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # what other threads allocate is not in the profile
    try:
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
            work()
    finally:
        torch.set_num_threads(threads)
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = most = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most
