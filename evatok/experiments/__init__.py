import sys

from evatok.errors import quiet_interrupts

if sys.argv[:1] == ["-m"]:  # a command of this package, whose modules are being imported
    quiet_interrupts("evatok.experiments")
