// Names of files while they are written: always the same ones, so that what a killed process left is found.

/** What Host.writeFile() writes before it takes the place of `name`. */
export function unfinishedName(name: string): string {
  return `.${name}.new`;
}

export function isUnfinished(name: string): boolean {
  return /^\..+\.new$/u.test(name);
}
