"""python -m kernelfield.cli"""

from kernelfield.cli import main

if __name__ == "__main__":
    main()
