//! The rows of `tests/data/ossfs-options.tsv`: every option that ossfs accepts, and its class.

const TSV: &str = include_str!("../data/ossfs-options.tsv");

/// One row of the table.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) takes_value: bool,
    pub(crate) class: &'static str,
}

impl Row {
    /// Every way of writing the option with a value, where it takes one, and without, where it may
    /// do without.
    pub(crate) fn spellings(&self, value: &str) -> Vec<String> {
        if self.takes_value {
            vec![format!("{}={value}", self.name)]
        } else {
            vec![self.name.to_owned()]
        }
    }
}

/// The rows of `class`, with "optional" ones twice: with a value and without.
pub(crate) fn rows(class: &str) -> Vec<Row> {
    let mut rows = Vec::new();
    for line in TSV.lines().skip(1) {
        let mut fields = line.split('\t');
        let (Some(name), Some(takes), Some(of)) = (fields.next(), fields.next(), fields.next())
        else {
            panic!("not a row: {line:?}");
        };
        if of == class {
            rows.extend((takes != "yes").then_some(Row {
                name,
                takes_value: false,
                class: of,
            }));
            rows.extend((takes != "no").then_some(Row {
                name,
                takes_value: true,
                class: of,
            }));
        }
    }
    assert!(!rows.is_empty(), "no row of class {class}");
    rows
}
