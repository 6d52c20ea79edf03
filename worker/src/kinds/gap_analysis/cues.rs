//! Cues: the phrases by which a sentence states a gap.
use std::sync::LazyLock;

use regex::Regex;

/// The cues, as case-insensitive regular expressions over text with straight apostrophes.
const CUES: [&str; 14] = [
    // remains unclear, remain largely unexplored, remained poorly understood, remains an open question
    r"remain(?:s|ed|ing)? (?:\w+ )?(?:unclear|unknown|unexplored|unresolved|unanswered|unsolved|unexplained|uncertain|elusive|open|controversial|understudied|underexplored|undetermined|untested|unaddressed|poorly \w+|insufficiently \w+|(?:an? )?(?:open|unsolved|unanswered) \w+|not (?:\w+ )?(?:understood|known|clear))",
    // remains to be seen
    r"remain(?:s|ed)? to be \w+",
    // is still unclear, are currently unknown, is poorly understood
    r"(?:is|are|was|were) (?:(?:still|currently|largely|mostly|as yet|yet|so far|often|also) )*(?:unclear|unknown|unexplored|unresolved|understudied|underexplored|(?:poorly|insufficiently|inadequately|incompletely) (?:understood|characteri[sz]ed|studied|explored|known|documented))",
    // has not been studied, have never been tested, has yet to be shown, have rarely been examined
    r"(?:has|have|had)(?: not|n't| never| yet to| rarely| seldom| hardly)(?: (?:yet|so far|still|ever|previously))* (?:be|been) (?:\w+ )?\w+ed\b",
    r"(?:has|have|had)(?: not|n't| never| yet to| rarely| seldom| hardly)(?: (?:yet|so far|still|ever|previously))* (?:be|been) (?:\w+ )?(?:shown|known|seen|found|understood|proven|drawn|sought|undertaken|made|done)",
    // is not well understood, are not yet known, is not clear whether
    r"(?:is|are|was|were)(?: not|n't)(?: (?:yet|well|fully|completely|entirely|sufficiently|adequately|been))* (?:understood|known|clear|established|explained|studied)",
    // little is known, not much is known, nothing is known
    r"(?:little|less|not much|nothing|not enough) (?:is|was) (?:\w+ )?(?:known|understood)",
    // no study has, few studies have, no published trials exist
    r"(?:no|few|very few|only a few|hardly any) (?:\w+ )?(?:study|studies|works?|research|researchers|evidence|trials?|experiments?|investigations?|attempts?|data) (?:has|have|had|exists?|is|are|was|were)",
    // there is little evidence, there are no data, there is a lack of
    r"there (?:is|are|was|were|remains|has been|have been) (?:\w+ )?(?:little|no|limited|insufficient|scarce|scant|few|a lack|lack|a paucity|a dearth|a need|a gap)\b",
    // lack of evidence, paucity of data, gap in the literature
    r"(?:lack|paucity|dearth|scarcity|absence) of (?:\w+ )?(?:studies|research|data|evidence|knowledge|understanding|consensus|literature|work)",
    r"(?:(?:research|knowledge|evidence|literature) gaps?|gaps? in (?:\w+ ){0,2}(?:knowledge|literature|understanding|research|evidence))",
    // further research is needed, more studies are required, needs additional work, additional trials should
    r"(?:further|more|additional) (?:\w+ ){0,2}(?:research|work|study|studies|investigations?|experiments?|trials?|analys[ie]s|evidence|data|evaluation) (?:is|are|will|would|should|must|needs?|could|may|might|has to|have to)",
    r"(?:needs?|needed|requires?|required|warrants?|warranted|deserves?|merits?|calls? for|awaits?) (?:to be )?(?:further|more|additional|future) (?:\w+ )?(?:research|work|study|studied|studies|investigat\w+|experiments?|trials?|analys[ie]s|attention|exploration|evaluation)",
    // future work, left for future research, an open question
    r"(?:future (?:work|research|stud(?:y|ies)|directions?|investigations?)|(?:open|unanswered|unsolved|outstanding) (?:research )?(?:questions?|problems?|issues?|challenges?)|under-?(?:studied|explored|researched|investigated))",
];

static CUE: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(&format!(r"(?i)\b(?:{})", CUES.join("|"))).expect("the cues are regular expressions"));

/// Whether a sentence states a gap.
pub(super) fn has_cue(sentence: &str) -> bool {
    CUE.is_match(&sentence.replace('\u{2019}', "'"))
}

/// The sentence without its cues.
pub(super) fn without_cues(sentence: &str) -> String {
    CUE.replace_all(&sentence.replace('\u{2019}', "'"), " ").into_owned()
}
