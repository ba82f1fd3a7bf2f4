"""`python -m fasthg.cli`."""

from fasthg.cli.app import main

raise SystemExit(main())
