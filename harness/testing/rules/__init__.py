"""The rules of the conformance kit, with one module for each kind of object that plugins provide."""
