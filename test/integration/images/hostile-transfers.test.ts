// Images that come in pieces, in the wrong order, with lies about themselves, or while others do something else with them.
import { randomBytes } from 'node:crypto';
import { request } from 'node:http';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { tar } from '../host/tar-writer.ts';
import { describeWith } from '../support.ts';
import { bzip2, gzipped, squashfs, xz, zstd } from './hostile-archives.ts';
import { bareImage, directory, file, HostileLab, METADATA } from './hostile-support.ts';

const BOUNDARY = 'b';
type Part = readonly [name: string, content: Buffer | string, filename?: string];

function form(parts: readonly Part[], end = `\r\n--${BOUNDARY}--\r\n`): Buffer {
  const pieces = parts.flatMap(([name, content, filename = 'f']) => [
    Buffer.from(`\r\n--${BOUNDARY}\r\nContent-Disposition: form-data; name="${name}"; filename="${filename}"\r\n\r\n`),
    Buffer.from(content),
  ]);
  return Buffer.concat([...pieces, Buffer.from(end)]).subarray(2);
}

const metadata = tar([file('metadata.yaml', METADATA)]);
const root = tar([directory('etc/'), file('etc/passwd', 'root:x:0:0::/:/bin/sh\n')]);

/** Forms of images of two files. */
const FORMS: Readonly<Record<string, () => Buffer>> = {
  'its parts swapped': () =>
    form([
      ['rootfs', root],
      ['metadata', metadata],
    ]),
  'the contents of its parts swapped': () =>
    form([
      ['metadata', root],
      ['rootfs', metadata],
    ]),
  'metadata twice': () =>
    form([
      ['metadata', metadata],
      ['metadata', metadata],
    ]),
  'three parts': () =>
    form([
      ['metadata', metadata],
      ['rootfs', root],
      ['rootfs', root],
    ]),
  'no root': () => form([['metadata', metadata]]),
  'no parts': () => Buffer.from(`--${BOUNDARY}--\r\n`),
  'no end': () =>
    form(
      [
        ['metadata', metadata],
        ['rootfs', root],
      ],
      '',
    ),
  'a part that nobody knows': () =>
    form([
      ['metadata', metadata],
      ['../../etc/cron.d/evil', root],
    ]),
  'a header of a part without end': () => Buffer.from(`--${BOUNDARY}\r\n${'X: y\r\n'.repeat(100_000)}`),
  'the disk of a virtual machine': () =>
    form([
      ['metadata', metadata],
      ['rootfs.img', root],
    ]),
  'a root that is text': () =>
    form([
      ['metadata', metadata],
      ['rootfs', 'hello world'],
    ]),
  'an empty root': () =>
    form([
      ['metadata', metadata],
      ['rootfs', ''],
    ]),
  'a root that is half a squashfs': () =>
    form([
      ['metadata', metadata],
      ['rootfs', Buffer.from(`hsqs${'\x07'.repeat(4096)}`)],
    ]),
  'two roots': () =>
    form([
      ['metadata', tar([file('metadata.yaml', METADATA), directory('rootfs/')])],
      ['rootfs', root],
    ]),
};

const COMPRESSIONS: Readonly<Record<string, (image: Buffer) => Buffer | Promise<Buffer>>> = {
  'a tar': (image) => image,
  'a gzip file': gzipped,
  'a bzip2 file': bzip2,
  'an xz file': xz,
  'a zstd file': zstd,
  'a squashfs file': () => squashfs(randomBytes(60_000)),
};
/** Of the whole. */
const CUTS = [0.001, 0.02, 0.3, 0.7, 0.95, 0.9995];

const tools = ['lxc-start', 'busybox', 'tar', 'xz', 'zstd', 'bzip2', 'mksquashfs', 'unsquashfs'];
describeWith({ root: true, commands: tools }, 'an image that comes with', () => {
  let lab: HostileLab;

  beforeAll(async () => {
    lab = await HostileLab.start();
  });
  afterAll(() => lab[Symbol.asyncDispose]());

  it.each(Object.keys(FORMS))('%s is refused', async (name) => {
    const type = { 'content-type': `multipart/form-data; boundary=${BOUNDARY}` };

    const fate = await lab.fate(FORMS[name]?.() ?? Buffer.alloc(0), type);

    expect(['upload', 'import', 'create'], fate.error).toContain(fate.stage);
    await lab.expectHarmless(fate);
  });

  it.each(Object.keys(COMPRESSIONS))('%s cut off anywhere is refused', async (name) => {
    const data = randomBytes(60_000);
    const whole = (await COMPRESSIONS[name]?.(bareImage([file('rootfs/data', data)]))) ?? Buffer.alloc(0);

    // The end of a squashfs is padding.
    for (const cut of CUTS.filter((share) => share < 0.9 || name !== 'a squashfs file')) {
      const fate = await lab.fate(whole.subarray(0, Math.floor(whole.length * cut)));

      expect(['upload', 'import', 'create'], `${cut}: ${fate.error}`).toContain(fate.stage);
      await lab.expectHarmless(fate);
    }
  });

  it.each(Object.keys(COMPRESSIONS))('%s and junk behind it is refused or whole', async (name) => {
    const whole = (await COMPRESSIONS[name]?.(lab.image([]))) ?? Buffer.alloc(0);

    const fate = await lab.fate(Buffer.concat([whole, Buffer.from('junk'.repeat(500))]));

    expect(fate.stage).not.toBe('upload');
    await lab.expectHarmless(fate);
  });

  it.each([
    ['another fingerprint', { 'x-lxd-fingerprint': '0'.repeat(64) }, /fingerprints don't match/u],
    ['a fingerprint that climbs out', { 'x-lxd-fingerprint': '../../../tmp/evil' }, /fingerprints don't match/u],
  ])('%s than its own is refused', async (_what, headers, error) => {
    const fate = await lab.fate(lab.image([]), headers);

    expect(fate).toEqual({ stage: 'import', error: expect.stringMatching(error) });
    await lab.expectHarmless(fate);
  });

  it('a file name and properties that are strange is only shown with them', async () => {
    const properties = encodeURI('a=\x1b]0;evil\x07&__proto__=x&b=../../x');
    const headers = { 'x-lxd-filename': '../../../../tmp/evil', 'x-lxd-properties': properties };

    const fate = await lab.fate(lab.image([]), headers);

    expect(fate).toEqual({ stage: 'started', error: '' });
    await lab.expectHarmless(fate);
  });

  it.each([
    ['more than it promised', 10],
    ['less than it promised', 5_000_000],
  ])('%s leaves nothing', async (_what, length) => {
    const content = lab.image([]);
    const headers = { 'content-type': 'application/octet-stream', 'content-length': String(length) };
    await new Promise<void>((resolve) => {
      const { socketPath } = lab.daemon;
      const upload = request({ socketPath, path: '/1.0/images', method: 'POST', headers }, (answer) => {
        answer.resume().once('close', resolve);
      });
      upload.once('error', () => resolve());
      upload.write(content.subarray(0, length === 10 ? 10 : 100_000), () => upload.destroy());
    });

    await lab.expectHarmless({ stage: 'upload', error: 'the client has gone' });
    expect((await lab.daemon.call('GET', '/1.0/images')).metadata).toEqual([]);
  });

  it('itself at the same time is there once', async () => {
    const image = lab.image([file('rootfs/twice')]);

    const ends = await Promise.all(
      (await Promise.all([1, 2, 3, 4].map(() => lab.upload(image)))).map((one) => lab.end(one)),
    );

    expect(ends.filter((error) => error === '')).toHaveLength(1);
    expect(ends.filter((error) => error.includes('already exists'))).toHaveLength(3);
    const [url] = (await lab.daemon.call('GET', '/1.0/images')).metadata;
    await lab.daemon.operate('DELETE', url);
    await lab.expectHarmless({ stage: 'started', error: '' });
  });

  it('its own end is either there or not, and so are instances of it', async () => {
    for (let round = 0; round < 4; round++) {
      const uploaded = await lab.upload(lab.image([file(`rootfs/round-${round}`)]));
      expect(await lab.end(uploaded)).toBe('');
      const { fingerprint } = (await lab.daemon.call('GET', uploaded.operation)).metadata.metadata;
      const create = lab.daemon.call('POST', '/1.0/instances', {
        name: `r${round}`,
        source: { type: 'image', fingerprint },
      });
      const remove = lab.daemon.call('DELETE', `/1.0/images/${fingerprint}`);
      const again = lab.daemon.call('DELETE', `/1.0/images/${fingerprint}`);

      const answers = await Promise.all([create, remove, again]);
      const [created] = await Promise.all(
        answers.map(async (one) => (one.type === 'async' ? lab.end(one) : one.error)),
      );

      const { status } = await lab.daemon.call('GET', `/1.0/instances/r${round}`);
      expect(status).toBe(created === '' ? 200 : 404);
      if (status === 200) await lab.daemon.operate('DELETE', `/1.0/instances/r${round}`);
      await lab.expectHarmless({ stage: 'create', error: created || 'created' });
    }
  });
});
