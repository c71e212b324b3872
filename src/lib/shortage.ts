// Why something could not be written: read from whatever was thrown, by the kernel, a command or the database.

export type Shortage = 'full' | 'limit' | 'readonly';

const CODES: Readonly<Record<string, Shortage>> = { ENOSPC: 'full', EDQUOT: 'limit', EROFS: 'readonly' };
/** SQLITE_FULL and SQLITE_READONLY. */
const SQLITE: Readonly<Record<number, Shortage>> = { 13: 'full', 8: 'readonly' };
const TEXTS: readonly (readonly [RegExp, Shortage])[] = [
  [/no space left on device|out of space|disk is full/iu, 'full'],
  [/disk quota exceeded/iu, 'limit'],
  [/read-only file system|pool is read-only/iu, 'readonly'],
];
const MAX_DEPTH = 8;

/** undefined: it failed for another reason. */
export function shortageIn(error: unknown): Shortage | undefined {
  let current = error;
  for (let depth = 0; depth < MAX_DEPTH && current instanceof Error; depth++) {
    const found = ofOne(current);
    if (found) return found;
    current = current.cause;
  }
  return undefined;
}

function ofOne(error: Error): Shortage | undefined {
  const { code, errno, errcode } = error as { code?: unknown; errno?: unknown; errcode?: unknown };
  const named = CODES[String(code)] ?? CODES[String(errno)];
  const ofDatabase = typeof errcode === 'number' ? SQLITE[errcode & 0xff] : undefined;
  return named ?? ofDatabase ?? TEXTS.find(([pattern]) => pattern.test(error.message))?.[1];
}
