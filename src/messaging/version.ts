// RPC versions x.y[.z]: which requests an implementation of a version can serve (sections 1.4 and 1.5).

/** Same major, and the requested minor (then the third part) not above the implemented one. */
export function isCompatible(implemented: string, requested: string): boolean {
  const [major, minor, revision] = parts(implemented);
  const [wantedMajor, wantedMinor, wantedRevision] = parts(requested);
  if (wantedMajor !== major || !(wantedMinor <= minor)) return false;
  return wantedMinor < minor || wantedRevision <= revision;
}

function parts(version: string): readonly [number, number, number] {
  if (!/^\d+(\.\d+){0,2}$/.test(version)) return [Number.NaN, Number.NaN, Number.NaN];
  const [major = Number.NaN, minor = 0, revision = 0] = version.split('.').map(Number);
  return [major, minor, revision];
}
