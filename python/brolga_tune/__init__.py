"""`brolga tune` on more than one machine, over Ray.

| module | what stands there |
| --- | --- |
| `plan` | which kernel is searched next, for how long, with which seed |
| `records` | the log: lines that are added once, and those that a search begins with |
| `binary` | the command `brolga`, called |
| `leash` | a process that ends with the one that started it |
| `node` | what runs on a node |
| `cluster` | workers of a Ray cluster, given parts until the time is up |
| `cli` | the command `brolga-tune` |

Invariant: only `cluster` imports Ray, and nothing but the binary times or compiles. What is found is in the log as soon
as it arrives.
"""
