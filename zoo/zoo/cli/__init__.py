"""The program `zoo`: one module a group of commands."""
