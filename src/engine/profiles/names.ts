// What profiles, pools and aliases may be called, with LXD's words for what they may not.
import { AppError } from '#src/lib/errors.ts';

/** `what` as LXD says it at the start of a sentence: Profile, Storage pool. */
export function checkName(what: 'Profile' | 'Storage pool', name: string): void {
  if (name === '') throw new AppError('invalid', 'No name provided');
  if (name.includes('/')) throw new AppError('invalid', `${what} names may not contain slashes`);
  if (name === '.' || name === '..' || /[\s\0]/u.test(name)) {
    throw new AppError('invalid', `Invalid ${what.toLowerCase()} name "${name}"`);
  }
}
