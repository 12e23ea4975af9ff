# Run by drgn: prints one JSON object of medians in microseconds. See drgn.mjs.
import json
import os
import statistics
import time

from drgn.helpers.linux import list_for_each_entry

TURNS = int(os.environ.get("TURNS", "11"))


def median(work, per):
    work()
    samples = []
    for _ in range(TURNS):
        start = time.perf_counter()
        work()
        samples.append((time.perf_counter() - start) * 1e6 / per)
    return statistics.median(samples)


init = prog["init_task"]
MEMBERS = 2000


def members():
    for _ in range(MEMBERS):
        init.pid.value_()


def tasks():
    return [
        (task.pid.value_(), task.comm.string_())
        for task in list_for_each_entry("struct task_struct", init.tasks.address_of_(), "tasks")
    ]


count = len(tasks())
result = {
    "tasks": count,
    "member": median(members, MEMBERS),
    "walk": median(tasks, count),
    "print": median(lambda: str(init), 1),
}
try:
    from drgn.helpers.linux.mm import for_each_vma

    def areas():
        number = 0
        for task in list_for_each_entry("struct task_struct", init.tasks.address_of_(), "tasks"):
            if task.mm:
                for vma in for_each_vma(task.mm):
                    vma.vm_start.value_(), vma.vm_end.value_()
                    number += 1
        return number

    result["areas"] = areas()
    result["vma"] = median(areas, result["areas"])
except ImportError:
    pass
with open("/proc/self/status") as status:
    own = next(line for line in status if line.startswith("RssAnon"))
# Its own memory: a file that is mapped is the page cache's.
result["memory"] = int(own.split()[1]) * 1024
print(json.dumps(result))
