"""What the packages hold that `make deb` and `make rpm` have built; run by `make packages-test`."""
