"""Tests of the runtime. That this is a package ends what its tests share when they end."""
