//! A terminal for tests: what is written to it, as a person sees it.

use crate::progress::live::Size;

/// As much of a terminal as the live lines need, with everything that has scrolled off its top.
pub(crate) struct Screen {
    columns: usize,
    rows: usize,
    /// The last `rows` of them are on the screen.
    lines: Vec<Vec<char>>,
    row: usize,
    column: usize,
}

impl Screen {
    pub(crate) fn new(size: Size) -> Self {
        Self { columns: size.columns.into(), rows: size.rows.into(), lines: vec![Vec::new()], row: 0, column: 0 }
    }

    /// Takes text, line feeds and the two sequences that it knows; any other is an error of the program under test.
    pub(crate) fn write(&mut self, text: &str) {
        let mut rest = text.chars();
        while let Some(letter) = rest.next() {
            match letter {
                '\n' => self.line_feed(),
                '\r' => self.column = 0,
                '\x1b' => {
                    assert_eq!(rest.next(), Some('['), "an escape sequence without a bracket");
                    let number: String = rest.clone().take_while(char::is_ascii_digit).collect();
                    let action = rest.by_ref().nth(number.len());
                    self.act(action, number.parse().ok());
                }
                letter => {
                    assert!(!letter.is_control(), "control character {letter:?}");
                    self.put(letter);
                }
            }
        }
    }

    /// Every line that was ever there to stay, the empty one of the cursor left out.
    pub(crate) fn lines(&self) -> Vec<String> {
        assert_eq!((self.row, self.column), (self.lines.len() - 1, 0), "the cursor is below everything");
        assert!(self.lines[self.row].is_empty());
        self.lines[..self.row].iter().map(|line| text(line)).collect()
    }

    /// Rows that are seen.
    pub(crate) fn visible(&self) -> Vec<String> {
        self.lines[self.top()..].iter().map(|line| text(line)).collect()
    }

    fn top(&self) -> usize {
        self.lines.len().saturating_sub(self.rows)
    }

    fn line_feed(&mut self) {
        self.row += 1;
        self.column = 0;
        if self.row == self.lines.len() {
            self.lines.push(Vec::new());
        }
    }

    fn put(&mut self, letter: char) {
        if self.column == self.columns {
            self.line_feed();
        }
        let line = &mut self.lines[self.row];
        line.resize(line.len().max(self.column + 1), ' ');
        line[self.column] = letter;
        self.column += 1;
    }

    fn act(&mut self, action: Option<char>, number: Option<usize>) {
        match action {
            Some('A') => self.row = self.row.saturating_sub(number.unwrap_or(1)).max(self.top()),
            Some('J') => {
                // A screen does not get shorter: what is cleared stays as empty rows, which nothing here needs.
                self.lines.truncate(self.row + 1);
                self.lines[self.row].truncate(self.column);
            }
            other => panic!("unknown escape sequence {other:?}"),
        }
    }
}

fn text(line: &[char]) -> String {
    line.iter().collect::<String>().trim_end().to_owned()
}
