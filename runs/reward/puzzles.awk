# Puzzles for `runs/reward.sh`: awk -v puzzle=sudoku|countdown -v train=N -v tuned=N -v test=N -v out=DIR -f puzzles.awk [TEST]
#
# Writes `tuned.jsonl`, puzzles with solutions, and, as the tasks beside this file read them, `train/`, puzzles
# without, and `test/`. No puzzle of TEST, a file of such puzzles, is in the first two; without TEST
# it is written, and of Sudoku no grid of it is in the first two.

# Fills the grid from cell `at` on in every way.
function fill(at,   digit, i, grid) {
  if (at == 16) { grid = ""; for (i = 0; i < 16; i++) grid = grid cell[i]; grids[count++] = grid; return }
  for (digit = 1; digit <= 4; digit++) if (fits(at, digit)) { cell[at] = digit; fill(at + 1) }
}
function fits(at, digit,   i, row, column) {
  row = int(at / 4); column = at % 4
  for (i = 0; i < at; i++)
    if (cell[i] == digit && (int(i / 4) == row || i % 4 == column ||
        (int(int(i / 4) / 2) == int(row / 2) && int((i % 4) / 2) == int(column / 2)))) return 0
  return 1
}
# A grid with 8 empty cells; every fourth grid is for the test.
function sudoku(tests,   at, empty) {
  do at = int(rand() * count); while (!given && (at % 4 == 0) != tests)
  asked = solution = grids[at]
  for (empty = 8; empty > 0;) {
    at = 1 + int(rand() * 16)
    if (substr(asked, at, 1) != "0") { asked = substr(asked, 1, at - 1) "0" substr(asked, at + 1); empty-- }
  }
}
# Three numbers up to 100, and what they make with two operations: up to 100 as well.
function countdown(   a, b, c, first, second, value) {
  do {
    a = 1 + int(rand() * 100); b = 1 + int(rand() * 100); c = 1 + int(rand() * 100)
    first = operation(); second = operation()
    if (first == "*") value = a * b; else if (first == "+") value = a + b; else value = a - b
    if (second == "*") value = first == "*" ? value * c : first == "+" ? a + b * c : a - b * c
    else value = second == "+" ? value + c : value - c
  } while (value < 1 || value > 100)
  solution = a first b second c
  asked = rand() < 1 / 2 ? (rand() < 1 / 3 ? a "," b "," c : rand() < 1 / 2 ? c "," a "," b : b "," c "," a) \
    : (rand() < 1 / 3 ? a "," c "," b : rand() < 1 / 2 ? b "," a "," c : c "," b "," a)
  asked = asked ">" value
}
function operation() { return rand() < 0.05 ? "*" : rand() < 0.4 ? "+" : "-" }

function draw(tests) { if (puzzle == "sudoku") sudoku(tests); else countdown() }
# As the task reads it.
function row(   parts) {
  if (puzzle == "sudoku") return asked "," solution
  split(asked, parts, ">")
  return "{\"input\": \"" parts[1] "\", \"output\": \"" parts[2] "\"}"
}

# TEST.
puzzle == "sudoku" { split($0, parts, ","); known[parts[1]] }
puzzle == "countdown" { split($0, parts, "\""); known[parts[4] ">" parts[8]]; given = 1 }
FNR > 1 { given = 1 }

END {
  srand(1)
  if (puzzle == "sudoku") { fill(0); file = "4x4_test_sudoku.csv"; header = "Puzzle,Solution" }
  else file = "countdown_cd3_test.jsonl"
  if (header) { print header > (out "/train/" file); if (!given) print header > (out "/test/" file) }
  for (i = 0; !given && i < test; i++) { draw(1); known[asked]; print row() > (out "/test/" file) }
  for (i = 0; i < tuned + train; i++) {
    do draw(0); while (asked in known)
    if (i < tuned) printf "{\"prompt\": \"%s=\", \"response\": \"%s\"}\n", asked, solution > (out "/tuned.jsonl")
    else print row() > (out "/train/" file)
  }
}
