//! A social network that looks like one: few people have most of the followers.

use rand::{RngExt, rngs::SmallRng};

/// People and who follows whom.
pub struct Network {
    /// Names, by number.
    pub people: Vec<String>,
    /// The followers of each person.
    pub followers: Vec<Vec<u32>>,
    /// People weighted by how much is posted: pick a place to pick an author.
    authors: Vec<u32>,
}

const FIRST: [&str; 24] = [
    "ada", "bo", "cleo", "dara", "eli", "finn", "gus", "hana", "ines", "jude", "kai", "lena", "milo", "nora",
    "omar", "pia", "quinn", "rosa", "sami", "tess", "uma", "vera", "wes", "yara",
];

impl Network {
    /// `people` persons, each following about `follows` others, most of them the well-known ones.
    pub fn generate(people: u32, follows: u32, rng: &mut SmallRng) -> Self {
        let names =
            (0..people).map(|number| format!("{}{number}", FIRST[number as usize % FIRST.len()])).collect();
        let mut followers = vec![Vec::new(); people as usize];
        for follower in 0..people {
            let count = rng.random_range(1..=follows * 2 - 1);
            for _ in 0..count {
                let followee = skewed(people, rng);
                if followee != follower {
                    followers[followee as usize].push(follower);
                }
            }
        }
        for of_one in &mut followers {
            of_one.sort_unstable();
            of_one.dedup();
        }
        // The better known write more, but everybody writes.
        let authors =
            (0..people).flat_map(|p| std::iter::repeat_n(p, 1 + (people / (p + 1)) as usize / 50)).collect();
        Network { people: names, followers, authors }
    }

    /// Somebody who writes a post.
    pub fn author(&self, rng: &mut SmallRng) -> u32 {
        self.authors[rng.random_range(0..self.authors.len())]
    }

    /// The follow relations, each once.
    pub fn follows(&self) -> impl Iterator<Item = (u32, u32)> {
        (0u32..).zip(&self.followers).flat_map(|(followee, all)| all.iter().map(move |f| (*f, followee)))
    }

    /// The person who follows the most others: whose feed is worth a look.
    pub fn keenest_reader(&self) -> u32 {
        let mut follows = vec![0u32; self.people.len()];
        for (follower, _) in self.follows() {
            follows[follower as usize] += 1;
        }
        (0u32..).zip(follows).max_by_key(|(_, count)| *count).map_or(0, |(person, _)| person)
    }
}

/// A person by a power law: the lower the number, the better known.
fn skewed(people: u32, rng: &mut SmallRng) -> u32 {
    let share: f64 = rng.random_range(0.0..1.0);
    ((f64::from(people)) * share.powi(3)) as u32
}
