// Personality files as the API sends them: [path, base64] pairs, checked at the border (section 5.2).
import type { GuestFile } from '#drivers/virt/driver.ts';

export type InjectedFile = readonly [path: string, content: string];

export function guestFiles(files: readonly InjectedFile[]): readonly GuestFile[] {
  return files.map(([path, content]) => ({ path, content: Buffer.from(content, 'base64') }));
}
