// Bytes of an image, wherever they come from, checked against what Glance says of it.
import { createHash, getHashes } from 'node:crypto';
import { type Readable, Transform } from 'node:stream';
import { AppError } from '#src/lib/errors.ts';
import type { GlanceImage } from './types.ts';

/** Passes the content on; its end is an AppError 'invalid' when it is not the image's. `broken`: what an error of `source` becomes. */
export function verified(source: Readable, image: GlanceImage, broken: (error: Error) => Error): Readable {
  const checked = verifier(image);
  source.on('error', (error) => checked.destroy(broken(error)));
  checked.on('close', () => source.destroy());
  return source.pipe(checked);
}

/** Passes bytes through; its end is an error when they are not the image's bytes. */
function verifier(image: GlanceImage): Transform {
  const expected = expectedDigest(image);
  const hash = expected && createHash(expected.algorithm);
  let sizeBytes = 0;
  return new Transform({
    transform(chunk: Buffer, _encoding, done) {
      hash?.update(chunk);
      sizeBytes += chunk.length;
      done(null, chunk);
    },
    flush(done) {
      done(
        problemWith(image, sizeBytes, hash && hash.digest('hex') !== expected.value ? expected.algorithm : undefined),
      );
    },
  });
}

function problemWith(image: GlanceImage, sizeBytes: number, wrongDigest: string | undefined): AppError | null {
  if (image.sizeBytes !== null && image.sizeBytes !== sizeBytes) {
    return new AppError('invalid', `image ${image.id} has ${sizeBytes} bytes where Glance says ${image.sizeBytes}`);
  }
  if (wrongDigest === undefined) return null;
  return new AppError('invalid', `image ${image.id} is corrupt: its ${wrongDigest} checksum is not the one in Glance`);
}

function expectedDigest(image: GlanceImage): { algorithm: string; value: string } | undefined {
  const { hashAlgorithm, hashValue, checksum } = image;
  if (hashAlgorithm !== null && hashValue !== null && getHashes().includes(hashAlgorithm)) {
    return { algorithm: hashAlgorithm, value: hashValue };
  }
  return checksum === null ? undefined : { algorithm: 'md5', value: checksum };
}
