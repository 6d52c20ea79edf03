//! The arguments of a script call.
use std::io::Write;

/// The arguments of a script call, after the time: their bytes in a row, and where each ends.
#[derive(Clone, Default, PartialEq)]
pub(crate) struct Args {
    data: Vec<u8>,
    ends: Vec<usize>,
}

impl Args {
    pub(crate) fn text(mut self, text: impl AsRef<str>) -> Self {
        self.data.extend_from_slice(text.as_ref().as_bytes());
        self.ends.push(self.data.len());
        self
    }

    pub(crate) fn number(mut self, number: impl Into<i128>) -> Self {
        write!(self.data, "{}", number.into()).expect("a vector takes all");
        self.ends.push(self.data.len());
        self
    }

    pub(crate) fn count(self, number: usize) -> Self {
        self.number(u64::try_from(number).expect("a usize fits"))
    }

    pub(crate) fn texts<T: AsRef<str>>(self, texts: impl IntoIterator<Item = T>) -> Self {
        texts.into_iter().fold(self, Args::text)
    }

    /// These, and then the others.
    pub(crate) fn and(mut self, others: &Self) -> Self {
        let before = self.data.len();
        self.data.extend_from_slice(&others.data);
        self.ends.extend(others.ends.iter().map(|end| before + end));
        self
    }

    /// Each argument.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let begins = std::iter::once(0).chain(self.ends.iter().copied());
        begins.zip(&self.ends).map(|(begin, end)| &self.data[begin..*end])
    }

    /// The size of the arguments in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.data.len()
    }
}
