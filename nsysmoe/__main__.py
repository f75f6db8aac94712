"""``python -m nsysmoe`` is ``nsysmoe``."""

from nsysmoe.cli import main

if __name__ == "__main__":
    main()
