//! What docs/ tells a newcomer to write down, taken from there as it is.

use std::path::Path;

/// The fenced block that follows `<!-- tested: NAME -->` in a document of docs/.
pub(crate) fn snippet(document: &str, name: &str, language: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(document);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mark = format!("<!-- tested: {name} -->\n```{language}\n");
    let (_, after) = text.split_once(&mark).unwrap_or_else(|| panic!("{document} has no {mark:?}"));
    let (block, _) = after.split_once("\n```\n").unwrap_or_else(|| panic!("{document}: the block {name} has no end"));
    format!("{block}\n")
}
