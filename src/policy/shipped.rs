//! The policies that the program brings.

/// Name and text of each shipped policy file.
pub fn shipped() -> &'static [(&'static str, &'static str)] {
    &[("observe-everything.yaml", include_str!("../../policies/observe-everything.yaml"))]
}
