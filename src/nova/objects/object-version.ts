// Versions of objects, `major.minor[.ignored]`, and which label goes out with them (nova-compute-contract section 3.4).

/** The lower of two versions of one object. */
export function lowerVersion(a: string, b: string): string {
  const [majorA, minorA] = parts(a);
  const [majorB, minorB] = parts(b);
  return majorA < majorB || (majorA === majorB && minorA <= minorB) ? a : b;
}

export function sameMajor(a: string, b: string): boolean {
  return parts(a)[0] === parts(b)[0];
}

function parts(version: string): readonly [major: number, minor: number] {
  const [major = '', minor = '0'] = version.split('.');
  return [Number(major), Number(minor)];
}
