// What could not be written, and why.
import { describe, expect, it } from 'vitest';
import { AppError } from '#src/lib/errors.ts';
import { shortageIn } from '#src/lib/shortage.ts';

describe('a shortage', () => {
  it.each([
    ['the kernel', Object.assign(new Error('write'), { code: 'ENOSPC' }), 'full'],
    ['a system call of ours', Object.assign(new Error('ioctl'), { errno: 'EDQUOT' }), 'limit'],
    ['the database', Object.assign(new Error('full'), { code: 'ERR_SQLITE_ERROR', errcode: 13 }), 'full'],
    ['a command', new AppError('internal', 'cp -a: exit status 1: cp: Read-only file system'), 'readonly'],
    ['something else', new Error('no'), undefined],
  ])('is seen in an error of %s, whatever is around it', (_whose, cause, expected) => {
    const error = new AppError('internal', 'cannot do it', { cause: new AppError('internal', 'step', { cause }) });

    expect(shortageIn(error)).toBe(expected);
  });
});
