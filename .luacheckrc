-- For the composed scripts, as the server gets them: `make lint` runs luacheck over those, because a file
-- of lua/lib/ alone is a function that nobody uses, and a script alone one that uses undefined functions.
std = "lua51"
read_globals = { "redis", "cjson", "KEYS", "ARGV" }
max_line_length = false -- of the source files, which lint_lua.py looks at
ignore = {
  "211/item", -- comes with lib/refusal, and a script without items does not call it
  "432", -- what is included inside a function names its arguments as it likes
}
