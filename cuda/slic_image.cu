// What SLIC does with an image before its rounds: Gaussian smoothing and scaling.
//
// Source: Achanta, Shaji, Smith, Lucchi, Fua, Süsstrunk, TPAMI 34(11), 2012; see voxseg/ops/slic.py.
// Launched by voxseg/ops/cuda/slic_image.py. Operations come in the order of NumPy's and SciPy's on
// the CPU. A volume (Z, Y, X) has less than 2^31 voxels.

template <typename T>
__device__ __forceinline__ void scale(
    const T* image, const unsigned char* mask, float* scaled, double low, double factor, int voxels
) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= voxels) return;
  bool inside = mask == nullptr || mask[i];
  scaled[i] = inside ? float((double(image[i]) - low) * factor) : INFINITE;
}

// One thread = one voxel of a channel: (value - low) * factor, infinity off the mask.
extern "C" __global__ void __launch_bounds__(256) slic_scale_float(
    const float* image, const unsigned char* mask, float* scaled, double low, double factor,
    int voxels
) {
  scale(image, mask, scaled, low, factor, voxels);
}

// The same for a channel of doubles.
extern "C" __global__ void __launch_bounds__(256) slic_scale_double(
    const double* image, const unsigned char* mask, float* scaled, double low, double factor,
    int voxels
) {
  scale(image, mask, scaled, low, factor, voxels);
}

// One thread = one voxel, filtered along one axis by a symmetric kernel; `weights` is its half from
// the centre outwards. Beyond the volume there is the nearest voxel or, if `zero`, nothing. Sums
// are made in the order of scipy.ndimage.correlate1d.
extern "C" __global__ void __launch_bounds__(256) slic_smooth(
    const float* image, float* smooth, const double* weights, int radius, int length, int stride,
    int zero, int voxels
) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= voxels) return;
  int at = i / stride % length;
  const float* line = image + (i - at * stride);
  double sum = double(image[i]) * weights[0];
  for (int reach = radius; reach > 0; --reach) {
    int before = at - reach, after = at + reach;
    bool no_before = zero && before < 0, no_after = zero && after >= length;
    double one = no_before ? 0.0 : double(line[max(before, 0) * stride]);
    double other = no_after ? 0.0 : double(line[min(after, length - 1) * stride]);
    sum += (one + other) * weights[reach];
  }
  smooth[i] = float(sum);
}
