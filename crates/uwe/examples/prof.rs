use std::path::Path; use std::time::Instant; use uwe::*;
fn main(){ let a:Vec<String>=std::env::args().collect();
 let p=match a[2].as_str(){"f32"=>Precision::F32,"bf16"=>Precision::Bf16,_=>Precision::Int16};
 let bt:usize=a[3].parse().unwrap();
 let e=Encoder::open(Path::new(&a[1]),EncoderOptions{precision:p,batch_tokens:bt,..Default::default()},Compute::new(1,None).unwrap()).unwrap();
 let texts:Vec<String>=(0..std::env::var("N").map_or(2000,|v|v.parse().unwrap())).map(|i|format!("senior {} specialist in machine learning {}", ["sales","nursing","care","data"][i%4], i%7)).collect();
 let t=e.tokenize(&texts).unwrap(); let n:usize=t.iter().map(|t|t.ids.len()).sum();
 let mut best=f64::MAX; for _ in 0..a[4].parse().unwrap() { let s=Instant::now(); e.encode_tokens(&t).unwrap(); best=best.min(s.elapsed().as_secs_f64()); }
 println!("{} batch {bt}: {:.0} tok/s",a[2], n as f64/best);
}
