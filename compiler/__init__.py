"""Recipe to plan. Opens no file but its own data; everything else comes through a `Catalog`."""
