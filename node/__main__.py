"""`python -m node`."""

from node.cli import main

raise SystemExit(main())
